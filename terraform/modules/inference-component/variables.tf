variable "create" {
  description = "Whether to create anything. False deletes what was created, and keeps the configuration."
  type        = bool
  default     = true
  nullable    = false
}

variable "name" {
  description = "Name of the component and prefix of all other names."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,36}$", var.name))
    error_message = "name must have 1 to 37 letters, digits and hyphens, with no hyphen at either end"
  }
}

variable "endpoint_name" {
  description = "Endpoint to run on, of the mode components."
  type        = string
  nullable    = false
}

variable "variant_name" {
  description = "The endpoint's variant."
  type        = string
  default     = "main"
  nullable    = false
}

# --- The model -----------------------------------------------------------------

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
}

variable "environment" {
  description = "Environment of the container: the server's flags in upper case, with _ for -. Put what does not fit into a config file beside the weights."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = length(var.environment) <= 90
    error_message = "environment may have 90 entries at most: SageMaker takes 100, and the module sets some"
  }
  validation {
    condition     = alltrue([for name, value in var.environment : can(regex("^[a-zA-Z_][a-zA-Z0-9_]*$", name)) && length(value) <= 1024])
    error_message = "environment: a name has letters, digits and _ only, and a value has at most 1024 characters"
  }
}

variable "revision" {
  description = "Any text. A new one makes a new model where nothing else tells that there is one: after an upload to the same prefix, or a tag that has moved."
  type        = string
  default     = ""
  nullable    = false
}

variable "slots" {
  description = "How many sequences a copy computes together (MAX_BATCH_SIZE). Null leaves the server's 64."
  type        = number
  default     = null

  validation {
    condition     = var.slots == null || try(var.slots >= 1 && floor(var.slots) == var.slots, false)
    error_message = "slots must be a whole number of at least 1"
  }
}

variable "network_isolation" {
  description = "Gives the container neither network nor credentials. SageMaker still copies the weights in."
  type        = bool
  default     = false
  nullable    = false
}

variable "vpc" {
  description = "Subnets and security groups for the containers' network interfaces; null for SageMaker's own network."
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null
}

variable "adapters" {
  description = "LoRA adapters of this model: the S3 URI of each one's archive or prefix, by name. They share the model's copies."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name, uri in var.adapters : can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9])*$", name)) && can(regex("^s3://[^/]+/.+(\\.tar\\.gz|/)$", uri))])
    error_message = "adapters: a name has letters, digits and hyphens, and its URI is an archive (.tar.gz) or a prefix that ends in /"
  }
  validation {
    condition     = alltrue([for name in keys(var.adapters) : length("${var.name}-${name}") <= 63])
    error_message = "adapters: a component's name, a hyphen and an adapter's name may have 63 characters together"
  }
}

# --- Its share of an instance, and how many of it --------------------------------

variable "resources" {
  description = "What a copy gets of its instance: GPUs, CPU cores, and memory in MB."
  type = object({
    accelerators  = optional(number)
    cpus          = optional(number)
    min_memory_mb = number
    max_memory_mb = optional(number)
  })
  nullable = false

  validation {
    condition     = var.resources.min_memory_mb >= 128 && try(var.resources.max_memory_mb >= var.resources.min_memory_mb, true)
    error_message = "resources.min_memory_mb must be at least 128, and max_memory_mb no less than it"
  }
  validation {
    condition     = try(var.resources.accelerators >= 1, true) && try(var.resources.cpus >= 0.25, true)
    error_message = "resources.accelerators must be at least 1, and cpus at least 0.25; leave out what is not needed"
  }
}

variable "copies" {
  description = <<-EOT
    Between `min` and `max` copies, so that each has about `target` requests at once (0.7 of slots if null).
    With a `min` of 0 the last copy goes when nothing is asked; requests then fail until one is back, which takes minutes.
  EOT
  type = object({
    min                = optional(number, 1)
    max                = optional(number, 1)
    target             = optional(number)
    scale_in_cooldown  = optional(number, 300)
    scale_out_cooldown = optional(number, 60)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.copies.min >= 0 && var.copies.min <= var.copies.max && var.copies.max >= 1
    error_message = "copies must have 0 <= min <= max, and a max of at least 1"
  }
  validation {
    condition     = try(var.copies.target > 0, true) && var.copies.scale_in_cooldown >= 0 && var.copies.scale_out_cooldown >= 0
    error_message = "copies.target must be more than 0, and the cooldowns 0 seconds or more"
  }
}

variable "caching" {
  description = "Keeps image and weights on the instance's NVMe, for copies that come later."
  type        = bool
  default     = true
  nullable    = false
}

variable "timeouts" {
  description = "Seconds for the copy of the weights to the instance, and from the container's start to its first healthy ping."
  type = object({
    download = optional(number, 1800)
    startup  = optional(number, 900)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for seconds in [var.timeouts.download, var.timeouts.startup] : seconds >= 60 && seconds <= 3600])
    error_message = "timeouts.download and timeouts.startup must be 60 to 3600 seconds"
  }
}

variable "deployment" {
  description = "How an update reaches copies that serve: `percent` of them at a time, with `wait_seconds` between; `rollback_on_alarm` goes back if an alarm of this module fires meanwhile."
  type = object({
    percent           = optional(number, 50)
    wait_seconds      = optional(number, 60)
    timeout_seconds   = optional(number, 7200)
    rollback_on_alarm = optional(bool, true)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.deployment.percent >= 5 && var.deployment.percent <= 50
    error_message = "deployment.percent must be 5 to 50"
  }
  validation {
    condition     = var.deployment.wait_seconds >= 0 && var.deployment.wait_seconds <= 3600 && var.deployment.timeout_seconds >= 600 && var.deployment.timeout_seconds <= 28800
    error_message = "deployment: wait_seconds must be 0 to 3600, timeout_seconds 600 to 28800"
  }
}

# --- What can be seen of it ------------------------------------------------------

variable "logs" {
  description = "Days for which logs are kept, and the key that encrypts them."
  type = object({
    retention_days = optional(number, 365)
    kms_key_arn    = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains([0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.logs.retention_days)
    error_message = "logs.retention_days must be one of CloudWatch's: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653; 0 keeps logs for ever"
  }
}

variable "alarms" {
  description = <<-EOT
    Alarms, and where they are sent (`action_arns`, such as an SNS topic). A limit of -1 disables that alarm.
    `server_errors`: answers of the class 5xx in five minutes. `latency_ms`: 99th percentile of the time to a complete answer, the whole of a stream included; where nobody streams, 55000 sees more.
  EOT
  type = object({
    enabled       = optional(bool, true)
    action_arns   = optional(list(string), [])
    server_errors = optional(number, 5)
    latency_ms    = optional(number, 450000) # streams are cut at 470 s
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.alarms.server_errors >= -1 && var.alarms.latency_ms >= -1
    error_message = "alarms: a limit must be 0 or more, or -1 for no alarm"
  }
}

# --- Permissions and tags --------------------------------------------------------

variable "execution_role_arn" {
  description = "A role to use as it is; null creates one that may do only what this model needs."
  type        = string
  default     = null

  validation {
    condition     = var.execution_role_arn == null || can(regex("^arn:aws[a-z-]*:iam::\\d{12}:role/[\\w+=,.@/-]+$", var.execution_role_arn))
    error_message = "execution_role_arn must be the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME"
  }
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
