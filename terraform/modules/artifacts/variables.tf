variable "name" {
  description = "Prefix of all names."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,35}$", var.name))
    error_message = "name must have 2 to 36 lower-case letters, digits and hyphens, with no hyphen first"
  }
}

variable "repositories" {
  description = "Image repositories to create."
  type        = set(string)
  default     = ["millrace"]
  nullable    = false

  validation {
    condition     = alltrue([for name in var.repositories : can(regex("^[a-z0-9][a-z0-9/._-]{1,255}$", name))])
    error_message = "repositories: a name has lower-case letters, digits and any of /._-"
  }
}

variable "keep_images" {
  description = "How many images a repository keeps; older ones are deleted."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.keep_images >= 1
    error_message = "keep_images must be at least 1"
  }
}

variable "keep_old_weights_days" {
  description = "Days for which the bucket keeps replaced or deleted files."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.keep_old_weights_days >= 1
    error_message = "keep_old_weights_days must be at least 1"
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the bucket and the repositories; null creates one, which log groups can use too."
  type        = string
  default     = null
}

variable "network" {
  description = <<-EOT
    Ways from a VPC to what is here, for containers in subnets that have no way out; null for none.
    `route_table_ids`: of those subnets, for S3. `subnet_ids`: one for each zone, for the other services. `cidr_blocks`: who may use them. `services`: which.
  EOT
  type = object({
    vpc_id          = string
    subnet_ids      = list(string)
    route_table_ids = list(string)
    cidr_blocks     = list(string)
    services        = optional(set(string), ["ecr.api", "ecr.dkr", "logs", "sagemaker.runtime"])
  })
  default = null
}

variable "force_destroy" {
  description = "Lets `terraform destroy` delete weights and images that are still there."
  type        = bool
  default     = false
  nullable    = false
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
  nullable    = false
}
