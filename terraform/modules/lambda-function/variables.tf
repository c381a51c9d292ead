variable "create" {
  description = "Whether to create anything. False deletes what was created, and keeps the configuration."
  type        = bool
  default     = true
  nullable    = false
}

variable "name" {
  description = "Name of the function and prefix of all other names."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9_-]{1,37}$", var.name))
    error_message = "name must have 1 to 37 letters, digits, hyphens or _"
  }
}

variable "image" {
  description = "Millrace's image in ECR by digest, for one architecture. A tag does not work: Lambda resolves it once, and Terraform would not notice that it moved."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^\\d{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/[a-z0-9][a-z0-9/._-]*@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must be an image in ECR by digest: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME@sha256:…"
  }
}

variable "architecture" {
  description = "The image's architecture: x86_64 or arm64."
  type        = string
  default     = "x86_64"
  nullable    = false

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture must be x86_64 or arm64"
  }
}

variable "weights" {
  description = "The checkpoint to stream from S3 at start: a prefix, which ends in /, or an archive; and the key that encrypts it. Null where the weights, or the demo model, are in the image."
  type = object({
    s3_uri      = string
    kms_key_arn = optional(string)
  })
  default = null

  validation {
    condition     = var.weights == null || can(regex("^s3://[a-z0-9][a-z0-9.-]+/(.*/|.*\\.(tar|tar\\.gz|tar\\.zst))?$", var.weights.s3_uri))
    error_message = "weights.s3_uri must be a prefix that ends in /, like s3://BUCKET/PREFIX/, or an archive: .tar, .tar.gz or .tar.zst"
  }
}

variable "environment" {
  description = "Environment of the function: the server's flags in upper case, with _ for -. Lambda takes 4 KB in all; put what does not fit into a config file in the image."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.environment) : can(regex("^[a-zA-Z][a-zA-Z0-9_]+$", name)) && !startswith(name, "AWS_")])
    error_message = "environment: a name has letters, digits and _, starts with a letter, and not with AWS_, which is Lambda's"
  }
  validation {
    condition     = sum(concat([0], [for name, value in var.environment : length(name) + length(value)], [length(try(var.weights.s3_uri, ""))])) <= 4000
    error_message = "environment may have 4000 characters in all, names, values and the weights' URI"
  }
  validation {
    condition     = var.url == null || !contains(keys(var.environment), "LAMBDA_INVOKE_MODE")
    error_message = "environment: LAMBDA_INVOKE_MODE must agree with the URL, and the module sets it: use url.stream"
  }
  validation {
    condition     = !contains(keys(var.environment), "MODEL_ID") || var.weights == null
    error_message = "environment: weights.s3_uri sets MODEL_ID; give one of them"
  }
}

variable "command" {
  description = "The image's command; empty leaves the image's own, which sees that it is in Lambda."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "memory_mb" {
  description = "Memory, which also gives the share of CPU: 1769 MB are one core, 10240 MB six. 2048 to 32768 on managed instances, whose cores `memory_gib_per_vcpu` gives."
  type        = number
  default     = 10240
  nullable    = false

  validation {
    condition     = var.managed_instances == null ? var.memory_mb >= 128 && var.memory_mb <= 10240 : var.memory_mb >= 2048 && var.memory_mb <= 32768
    error_message = "memory_mb must be 128 to 10240, or 2048 to 32768 on managed instances"
  }
}

variable "tmp_mb" {
  description = "Size of /tmp in MB."
  type        = number
  default     = 512
  nullable    = false

  validation {
    condition     = var.tmp_mb >= 512 && var.tmp_mb <= (var.managed_instances == null ? 10240 : 32768)
    error_message = "tmp_mb must be 512 to 10240, or to 32768 on managed instances"
  }
}

variable "timeout_seconds" {
  description = "Most seconds for a request, and for the wait for the weights in the first."
  type        = number
  default     = 300
  nullable    = false

  validation {
    condition     = var.timeout_seconds >= 1 && var.timeout_seconds <= (var.managed_instances == null ? 900 : 5400)
    error_message = "timeout_seconds must be 1 to 900, or to 5400 on managed instances"
  }
}

variable "reserved_concurrency" {
  description = "Most environments at once, taken from the account's; -1 for no limit but that one."
  type        = number
  default     = -1
  nullable    = false

  validation {
    condition     = var.reserved_concurrency >= -1 && floor(var.reserved_concurrency) == var.reserved_concurrency
    error_message = "reserved_concurrency must be a whole number of at least 0, or -1 for none"
  }
}

variable "provisioned_concurrency" {
  description = "Environments kept started, with the weights loaded; 0 for none."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.provisioned_concurrency >= 0 && floor(var.provisioned_concurrency) == var.provisioned_concurrency
    error_message = "provisioned_concurrency must be a whole number of at least 0"
  }
  validation {
    condition     = var.reserved_concurrency < 0 || var.provisioned_concurrency <= var.reserved_concurrency
    error_message = "provisioned_concurrency cannot be more than reserved_concurrency"
  }
  validation {
    condition     = var.provisioned_concurrency == 0 || var.managed_instances == null
    error_message = "provisioned_concurrency has no meaning on managed instances, where managed_instances.min_environments keeps environments"
  }
}

variable "snap_start" {
  description = "Whether new environments are restored from a snapshot with the weights loaded. Lambda takes it of each version when it is published, which may take minutes, and bills for keeping and for restoring it. It has no provisioned concurrency beside it, 512 MB of /tmp, and no managed instances."
  type        = bool
  default     = false
  nullable    = false

  validation {
    condition     = !var.snap_start || var.provisioned_concurrency == 0
    error_message = "snap_start: Lambda has no provisioned concurrency for functions with SnapStart; give one of them"
  }
  validation {
    condition     = !var.snap_start || var.managed_instances == null
    error_message = "snap_start has no meaning on managed instances, which keep their environments"
  }
  validation {
    condition     = !var.snap_start || var.tmp_mb == 512
    error_message = "snap_start: Lambda takes no snapshots of functions with more than 512 MB of /tmp; the weights need none of it"
  }
}

variable "managed_instances" {
  description = <<-EOT
    Runs the function on EC2 instances of this account instead, where one environment takes many requests at once and batches them; null for plain Lambda.
    `subnet_ids`, `security_group_ids`: where the instances are. `instance_types`: which are allowed, any if empty.
    `max_concurrency`: requests at once per environment, which is also the server's batch. `memory_gib_per_vcpu`: 2, 4 or 8. `max_vcpus`: a limit on the fleet.
    `min_environments`, `max_environments`: how many environments of the current version there are, which Lambda sets to 3 and to no limit if null; a `min_environments` of 0 lets the function scale to zero. `cpu_target`: the share of the CPUs, in percent, that scaling of the instances aims at; null leaves it to Lambda.
  EOT
  type = object({
    subnet_ids          = list(string)
    security_group_ids  = list(string)
    instance_types      = optional(list(string), [])
    max_concurrency     = optional(number, 16)
    memory_gib_per_vcpu = optional(number, 2)
    max_vcpus           = optional(number, 64)
    min_environments    = optional(number)
    max_environments    = optional(number)
    cpu_target          = optional(number)
  })
  default = null

  validation {
    condition     = try(var.managed_instances.max_concurrency >= 1 && var.managed_instances.max_concurrency <= 1600, true)
    error_message = "managed_instances.max_concurrency must be 1 to 1600"
  }
  validation {
    condition     = try(contains([2, 4, 8], var.managed_instances.memory_gib_per_vcpu), true)
    error_message = "managed_instances.memory_gib_per_vcpu must be 2, 4 or 8"
  }
  validation {
    condition     = try(var.managed_instances.max_vcpus >= 2 && var.managed_instances.max_vcpus <= 15000, true)
    error_message = "managed_instances.max_vcpus must be 2 to 15000"
  }
  validation {
    condition     = alltrue([for n in [try(var.managed_instances.min_environments, null), try(var.managed_instances.max_environments, null)] : n == null || try(n >= 0 && n <= 15000 && floor(n) == n, false)])
    error_message = "managed_instances.min_environments and max_environments must be whole numbers of 0 to 15000"
  }
  validation {
    condition     = try(var.managed_instances.max_environments, null) == null || try(var.managed_instances.max_environments >= 1 && var.managed_instances.max_environments >= coalesce(var.managed_instances.min_environments, 3), false)
    error_message = "managed_instances.max_environments must be at least 1 and no less than min_environments, which is 3 if null"
  }
  validation {
    condition     = try(var.managed_instances.cpu_target, null) == null || try(var.managed_instances.cpu_target > 0 && var.managed_instances.cpu_target <= 100, false)
    error_message = "managed_instances.cpu_target must be more than 0 and at most 100 percent"
  }
  validation {
    condition     = var.managed_instances == null || try(length(var.managed_instances.subnet_ids) >= 1 && length(var.managed_instances.security_group_ids) >= 1, false)
    error_message = "managed_instances needs at least one of subnet_ids and of security_group_ids"
  }
}

variable "vpc" {
  description = "Subnets and security groups for the function's network interfaces; null for Lambda's own network. Managed instances have theirs."
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null

  validation {
    condition     = var.vpc == null || var.managed_instances == null
    error_message = "vpc: on managed instances, give managed_instances its subnets instead"
  }
  validation {
    condition     = var.vpc == null || try(length(var.vpc.subnet_ids) >= 1 && length(var.vpc.security_group_ids) >= 1, false)
    error_message = "vpc needs at least one subnet and one security group"
  }
}

variable "url" {
  description = <<-EOT
    A URL for the function; null for none.
    `stream`: answers leave as they are generated (RESPONSE_STREAM), or in one piece (BUFFERED).
    `auth`: AWS_IAM requires signed requests, NONE allows anyone. `principals`: with AWS_IAM, other accounts or roles that may call; callers of this account need only a policy of their own.
    `cors`: origins, methods and headers that browsers may use.
  EOT
  type = object({
    stream     = optional(bool, true)
    auth       = optional(string, "AWS_IAM")
    principals = optional(set(string), [])
    cors = optional(object({
      allow_origins = list(string)
      allow_methods = optional(list(string), ["GET", "POST"])
      allow_headers = optional(list(string), ["authorization", "content-type"])
      max_age       = optional(number, 300)
    }))
  })
  default = null

  validation {
    condition     = contains(["AWS_IAM", "NONE"], try(var.url.auth, "AWS_IAM"))
    error_message = "url.auth must be AWS_IAM or NONE"
  }
  validation {
    condition     = try(var.url.auth != "NONE" || length(var.url.principals) == 0, true)
    error_message = "url.principals has no meaning where auth is NONE: anybody may call"
  }
  validation {
    condition     = try(length(var.url.cors.allow_origins) > 0 && var.url.cors.max_age >= 0 && var.url.cors.max_age <= 86400, true)
    error_message = "url.cors needs at least one of allow_origins, and a max_age of 0 to 86400 seconds"
  }
}

variable "queue" {
  description = <<-EOT
    An SQS queue whose messages are bodies of /invocations; null for none.
    `output_s3_uri`: the prefix, which ends in /, for the answers: PREFIX/MESSAGE.json, and PREFIX/failed/MESSAGE.json for a message that is refused. What fails otherwise comes again, until the queue gives up on it: give it a dead-letter queue, and a visibility timeout of six times `timeout_seconds`.
    `batch_size`: messages in an event. `max_concurrency`: events at once, 2 to 1000. `kms_key_arn`: the key that encrypts the queue and the answers.
  EOT
  type = object({
    arn             = string
    output_s3_uri   = string
    batch_size      = optional(number, 1)
    max_concurrency = optional(number)
    kms_key_arn     = optional(string)
  })
  default = null

  validation {
    condition     = var.queue == null || can(regex("^arn:aws[a-z-]*:sqs:[a-z0-9-]+:\\d{12}:[\\w.-]+$", var.queue.arn))
    error_message = "queue.arn must be the ARN of an SQS queue: arn:aws:sqs:REGION:ACCOUNT:NAME"
  }
  validation {
    condition     = var.queue == null || can(regex("^s3://[a-z0-9][a-z0-9.-]+/(.*/)?$", var.queue.output_s3_uri))
    error_message = "queue.output_s3_uri must be a prefix with a / at the end, like s3://BUCKET/PREFIX/"
  }
  validation {
    condition     = try(var.queue.batch_size >= 1 && var.queue.batch_size <= 10, true) && try(var.queue.max_concurrency >= 2 && var.queue.max_concurrency <= 1000, true)
    error_message = "queue: batch_size must be 1 to 10, max_concurrency 2 to 1000"
  }
}

variable "tracing" {
  description = "Whether requests are traced in X-Ray: Active, or PassThrough for those that come with a trace."
  type        = string
  default     = "Active"
  nullable    = false

  validation {
    condition     = contains(["Active", "PassThrough"], var.tracing)
    error_message = "tracing must be Active or PassThrough"
  }
}

variable "environment_kms_key_arn" {
  description = "Key that encrypts the environment variables; null for AWS's own."
  type        = string
  default     = null

  validation {
    condition     = var.environment_kms_key_arn == null || length(var.environment) > 0 || var.weights != null || var.url != null || var.managed_instances != null
    error_message = "environment_kms_key_arn: there is no environment to encrypt"
  }
}

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
    `errors`, without those that callers caused, and `throttles`: in five minutes. `duration_percent`: of the timeout, that the 99th percentile reaches.
  EOT
  type = object({
    enabled          = optional(bool, true)
    action_arns      = optional(list(string), [])
    errors           = optional(number, 5)
    throttles        = optional(number, 5)
    duration_percent = optional(number, 90)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for limit in [var.alarms.errors, var.alarms.throttles, var.alarms.duration_percent] : limit >= -1]) && var.alarms.duration_percent <= 100
    error_message = "alarms: a limit must be 0 or more, or -1 for no alarm; duration_percent at most 100"
  }
}

variable "role_name" {
  description = "Prefix of the name of the role that is made, or the whole of it: see `role_use_name_prefix`. Null is `name`."
  type        = string
  default     = null

  validation {
    condition     = var.role_name == null || try(can(regex("^[\\w+=,.@-]{1,55}$", var.role_name)) && (length(var.role_name) <= 37 || !var.role_use_name_prefix), false)
    error_message = "role_name must have 1 to 37 letters, digits or any of _+=,.@-, or 55 without role_use_name_prefix"
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
  description = "Permissions boundary of the roles."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
  nullable    = false
}
