variable "create" {
  description = "Whether to create the role. False deletes what was created, and keeps the configuration."
  type        = bool
  default     = true
  nullable    = false
}

variable "name" {
  description = "Prefix of the role's name, or the whole of it: see `use_name_prefix`."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[\\w+=,.@-]{1,64}$", var.name)) && (length(var.name) <= 37 || !var.use_name_prefix)
    error_message = "name must have 1 to 37 letters, digits or any of _+=,.@-, or 64 without use_name_prefix"
  }
}

variable "use_name_prefix" {
  description = "Whether Terraform adds to the name what makes it unique."
  type        = bool
  default     = true
  nullable    = false
}

variable "path" {
  description = "Path of the role."
  type        = string
  default     = "/"
  nullable    = false

  validation {
    condition     = can(regex("^/([\\w+=,.@-]+/)*$", var.path))
    error_message = "path must begin and end with /"
  }
}

variable "image" {
  description = "Image in ECR that the role may pull; null if it pulls none."
  type        = string
  default     = null

  validation {
    condition     = var.image == null || can(regex("^\\d{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/[a-z0-9][a-z0-9/._-]*(:[\\w.-]+|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "image must be an image in ECR with a tag or a digest: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG"
  }
}

variable "read_s3_uris" {
  description = "What the role may read in S3: prefixes, which end in /, and single objects."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for uri in var.read_s3_uris : can(regex("^s3://[^/]+/", uri))])
    error_message = "each of read_s3_uris must look like s3://BUCKET/PREFIX/ or s3://BUCKET/OBJECT"
  }
}

variable "write_s3_uris" {
  description = "Prefixes in S3, which end in /, that the role may write to."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for uri in var.write_s3_uris : can(regex("^s3://[^/]+/(.*/)?$", uri))])
    error_message = "each of write_s3_uris must look like s3://BUCKET/PREFIX/, with the / at the end"
  }
}

variable "kms_key_arns" {
  description = "Keys that encrypt what is read and written in S3, and the topics."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.kms_key_arns : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:\\d{12}:key/.+$", arn))])
    error_message = "each of kms_key_arns must be the ARN of a key: arn:aws:kms:REGION:ACCOUNT:key/ID"
  }
}

variable "log_group_names" {
  description = "CloudWatch log groups that the role may write to. It may not create any: a group that SageMaker makes keeps its logs for ever."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "topic_arns" {
  description = "SNS topics that the role may publish to."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.topic_arns : can(regex("^arn:aws[a-z-]*:sns:[a-z0-9-]+:\\d{12}:.+$", arn))])
    error_message = "each of topic_arns must be the ARN of a topic: arn:aws:sns:REGION:ACCOUNT:NAME"
  }
}

variable "vpc" {
  description = "Subnets and security groups in which the role may create network interfaces; null for none."
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null
}

variable "session_manager" {
  description = "Whether the role may open the channels of Session Manager, for a shell in the container."
  type        = bool
  default     = false
  nullable    = false
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of the role."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of the role."
  type        = map(string)
  default     = {}
  nullable    = false
}
