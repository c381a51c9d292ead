# Lambda on instances of one's own, where an environment answers many requests
# together. They stay up, so nothing is loaded while a request waits.

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

module "chat" {
  source = "../../modules/lambda-function"

  name              = var.name
  image             = var.image
  weights           = { s3_uri = var.weights }
  memory_mb         = 32768
  timeout_seconds   = 900
  managed_instances = merge(var.network, { max_concurrency = 32 })
  url               = {}
}

output "url" {
  description = "URL of the function, for signed requests."
  value       = module.chat.url
}
