variable "create" {
  description = "Whether to create anything. False deletes what was created, and keeps the configuration."
  type        = bool
  default     = true
  nullable    = false
}

variable "name" {
  description = "Name of the model; the module adds a hash of what it consists of, so that a change makes a new model beside the old one."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,36}$", var.name))
    error_message = "name must have 1 to 37 letters, digits and hyphens, with no hyphen at either end"
  }
}

variable "image" {
  description = "Millrace's image in ECR, with a tag or, better, a digest."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.image) <= 255 && can(regex("^\\d{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/[a-z0-9][a-z0-9/._-]*(:[\\w.-]+|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "image must be an image in ECR with a tag or a digest, at most 255 characters: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG"
  }
}

variable "weights" {
  description = <<-EOT
    Where the weights are; null for the demo model that is in the image.
    `s3_uri`: a prefix, which ends in /, with the checkpoint's files, or an archive (.tar.gz). A prefix is the better form: it is copied in parallel and need not be unpacked.
    `stream`: the server reads the prefix or archive (also .tar and .tar.zst) itself, straight into memory, instead of SageMaker copying it to the instance's disk before it starts.
    `additional`: further prefixes by channel name, which the container finds in /opt/ml/additional-model-data-sources/NAME/.
    `accept_eula`: that the licence of a gated model is accepted.
    `kms_key_arn`: the key that encrypts the objects.
  EOT
  type = object({
    s3_uri      = string
    stream      = optional(bool, false)
    additional  = optional(map(string), {})
    accept_eula = optional(bool, false)
    kms_key_arn = optional(string)
  })
  default = null

  validation {
    condition     = var.weights == null || can(regex("^s3://[a-z0-9][a-z0-9.-]+/(.*/|.*\\.tar\\.gz${try(var.weights.stream, false) ? "|.*\\.tar|.*\\.tar\\.zst" : ""})?$", var.weights.s3_uri))
    error_message = "weights.s3_uri must be a prefix that ends in /, like s3://BUCKET/PREFIX/, or an archive: s3://BUCKET/NAME.tar.gz, or with stream = true also .tar and .tar.zst"
  }
  validation {
    condition     = try(alltrue([for uri in values(var.weights.additional) : can(regex("^s3://[^/]+/(.*/)?$", uri))]), true)
    error_message = "each of weights.additional must be a prefix that ends in /, like s3://BUCKET/PREFIX/"
  }
  validation {
    condition     = try(length(var.weights.additional) <= 5, true)
    error_message = "weights.additional may have 5 entries at most"
  }
  validation {
    condition     = !(try(var.weights.stream, false) && var.network_isolation)
    error_message = "weights.stream needs the network, which network_isolation takes away"
  }
  validation {
    condition     = !(try(var.weights.accept_eula, false) && (try(var.weights.stream, false) || try(!endswith(var.weights.s3_uri, "/"), false)))
    error_message = "weights.accept_eula goes with a prefix that SageMaker copies: not with an archive or with stream = true"
  }
  validation {
    condition     = try(var.weights.kms_key_arn, null) == null || var.execution_role_arn == null
    error_message = "weights.kms_key_arn gives the role that is made a permission: give it to the role of execution_role_arn yourself, and leave it out"
  }
}

variable "environment" {
  description = "Environment of the container: the server's flags in upper case, with _ for -. Put what does not fit into a config file beside the weights."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = length(var.environment) <= 90
    error_message = "environment may have 90 entries at most: SageMaker takes 100, and the modules set some"
  }
  validation {
    condition     = alltrue([for name, value in var.environment : can(regex("^[a-zA-Z_][a-zA-Z0-9_]*$", name)) && length(value) <= 1024])
    error_message = "environment: a name has letters, digits and _ only, and a value has at most 1024 characters"
  }
  validation {
    condition     = !contains(keys(var.environment), "MODEL_ID") || !try(var.weights.stream, false)
    error_message = "environment: weights.stream sets MODEL_ID; give one of them"
  }
  validation {
    condition     = sum(concat([0], [for name, value in var.environment : length(name) + length(value)])) <= 32000
    error_message = "environment may have 32000 characters in all, names and values: SageMaker takes 32 KB; put the longest into a config file beside the weights"
  }
}

variable "revision" {
  description = "Any text. A new one makes a new model where nothing else tells that there is one: after an upload to the same prefix, or a tag that has moved."
  type        = string
  default     = ""
  nullable    = false
}

variable "vpc" {
  description = "Subnets and security groups for the container's network interface; null for SageMaker's own network."
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null

  validation {
    condition = var.vpc == null || try(
      length(var.vpc.subnet_ids) >= 1 && length(var.vpc.subnet_ids) <= 16 &&
    length(var.vpc.security_group_ids) >= 1 && length(var.vpc.security_group_ids) <= 5, false)
    error_message = "vpc needs 1 to 16 subnets and 1 to 5 security groups"
  }
}

variable "network_isolation" {
  description = "Gives the container neither network nor credentials. SageMaker still copies the weights in."
  type        = bool
  default     = false
  nullable    = false
}

variable "execution_role_arn" {
  description = "A role to use as it is; null creates one that may do only what this model needs."
  type        = string
  default     = null

  validation {
    condition     = var.execution_role_arn == null || can(regex("^arn:aws[a-z-]*:iam::\\d{12}:role/[\\w+=,.@/-]+$", var.execution_role_arn))
    error_message = "execution_role_arn must be the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME"
  }
}

variable "permissions" {
  description = "What the role that is made may do beside pulling the image and reading the weights: see the module execution-role."
  type = object({
    read_s3_uris    = optional(list(string), [])
    write_s3_uris   = optional(list(string), [])
    kms_key_arns    = optional(list(string), [])
    log_group_names = optional(list(string), [])
    topic_arns      = optional(list(string), [])
    session_manager = optional(bool, false)
  })
  default  = {}
  nullable = false
}

variable "role_name" {
  description = "Prefix of the name of the role that is made, or the whole of it: see `role_use_name_prefix`. Null is `name`."
  type        = string
  default     = null

  validation {
    condition     = var.role_name == null || try(can(regex("^[\\w+=,.@-]{1,64}$", var.role_name)) && (length(var.role_name) <= 37 || !var.role_use_name_prefix), false)
    error_message = "role_name must have 1 to 37 letters, digits or any of _+=,.@-, or 64 without role_use_name_prefix"
  }
  validation {
    condition     = var.role_name == null || var.execution_role_arn == null
    error_message = "role_name is for the role that the module makes, and execution_role_arn names one that exists: give one of them"
  }
}

variable "role_use_name_prefix" {
  description = "Whether Terraform adds to the name of the role what makes it unique."
  type        = bool
  default     = true
  nullable    = false
}

variable "role_path" {
  description = "Path of the role."
  type        = string
  default     = "/"
  nullable    = false

  validation {
    condition     = can(regex("^/([\\w+=,.@-]+/)*$", var.role_path))
    error_message = "role_path must begin and end with /"
  }
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of the role that is made."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || var.execution_role_arn == null
    error_message = "permissions_boundary_arn is for the role that the module makes, and execution_role_arn names one that exists: give one of them"
  }
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
  nullable    = false
}
