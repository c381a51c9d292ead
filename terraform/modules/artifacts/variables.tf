variable "create" {
  description = "Whether to create anything. False deletes what was created, and keeps the configuration."
  type        = bool
  default     = true
  nullable    = false
}

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

variable "keep_untagged_days" {
  description = "Days after its push for which a repository keeps an image without a tag. Images with a tag are never deleted, since an endpoint or a function may run any of them."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.keep_untagged_days >= 1 && floor(var.keep_untagged_days) == var.keep_untagged_days
    error_message = "keep_untagged_days must be a whole number of at least 1"
  }
}

variable "keep_old_weights_days" {
  description = "Days for which the bucket keeps replaced or deleted files."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.keep_old_weights_days >= 1 && floor(var.keep_old_weights_days) == var.keep_old_weights_days
    error_message = "keep_old_weights_days must be a whole number of at least 1"
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the bucket and the repositories; null creates one, which log groups can use too."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:\\d{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key: arn:aws:kms:REGION:ACCOUNT:key/ID"
  }
}

variable "network" {
  description = <<-EOT
    Ways from a VPC to what is here, for containers in subnets that have no way out; null for none.
    `route_table_ids`: of those subnets, for S3. `subnet_ids`: one for each zone, for the other services. `cidr_blocks`: who may use them. `services`: which; leave out those that the VPC has a private name for already.
    `s3`: `open` makes a gateway that lets everything through, as other workloads use the same route tables; `restricted` makes one for this bucket, `buckets` and ECR's layers only; `none` makes none, where the VPC has one.
  EOT
  type = object({
    vpc_id          = string
    subnet_ids      = list(string)
    route_table_ids = list(string)
    cidr_blocks     = list(string)
    services        = optional(set(string), ["ecr.api", "ecr.dkr", "logs", "sagemaker.runtime"])
    s3              = optional(string, "open")
    buckets         = optional(set(string), [])
  })
  default = null

  validation {
    condition     = contains(["open", "restricted", "none"], try(var.network.s3, "open"))
    error_message = "network.s3 must be open, restricted or none"
  }
  validation {
    condition     = try(length(var.network.buckets), 0) == 0 || try(var.network.s3, "") == "restricted"
    error_message = "network.buckets are those that a restricted gateway lets through: set network.s3 to restricted"
  }
  validation {
    condition     = var.network == null || try((length(var.network.route_table_ids) == 0) == (var.network.s3 == "none"), false)
    error_message = "network.route_table_ids are the gateway's: give at least one, or none where network.s3 is none"
  }
  validation {
    condition     = var.network == null || try(length(var.network.services) == 0 || length(var.network.subnet_ids) > 0 && length(var.network.cidr_blocks) > 0, false)
    error_message = "network.services need at least one of subnet_ids and of cidr_blocks"
  }
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
