variable "region" {
  description = "Region of everything; null takes that of the environment."
  type        = string
  default     = null
}

variable "name" {
  description = "Name of the endpoint, of which an account has one in a region."
  type        = string
  default     = "small"
}

variable "image" {
  description = "Millrace's image in ECR."
  type        = string
}

variable "weights" {
  description = "Prefix in S3 of a Hugging Face checkpoint, with a / at the end."
  type        = string
}
