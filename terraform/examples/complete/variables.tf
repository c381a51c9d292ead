variable "region" {
  description = "Region of everything; null takes that of the environment."
  type        = string
  default     = null
}

variable "name" {
  description = "Prefix of all names."
  type        = string
  default     = "llm"
}

variable "tag" {
  description = "Tag of the image, for the endpoint."
  type        = string
}

variable "digest" {
  description = "The image's digest for x86_64, for the function."
  type        = string
}

variable "network" {
  description = "The VPC, its private subnets, their route tables and addresses, and the endpoint's security groups."
  type = object({
    vpc_id             = string
    subnet_ids         = list(string)
    security_group_ids = list(string)
    route_table_ids    = list(string)
    cidr_blocks        = list(string)
  })
}

variable "pager" {
  description = "SNS topic that alarms are sent to."
  type        = string
}

variable "caller_role" {
  description = "Name of the role that calls the endpoint and the function."
  type        = string
}
