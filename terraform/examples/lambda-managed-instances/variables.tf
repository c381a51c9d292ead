variable "region" {
  description = "Region of everything; null takes that of the environment."
  type        = string
  default     = null
}

variable "name" {
  description = "Name of the function, of which an account has one in a region."
  type        = string
  default     = "chat"
}

variable "image" {
  description = "Millrace's image in ECR, by its digest."
  type        = string
}

variable "weights" {
  description = "Prefix in S3 of a Hugging Face checkpoint, with a / at the end."
  type        = string
}

variable "network" {
  description = "Private subnets and security groups for the instances."
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
}
