variable "create" {
  description = "Whether to create anything. False deletes what was created, and keeps the configuration."
  type        = bool
  default     = true
  nullable    = false
}

variable "name" {
  description = "Name of the endpoint and prefix of all other names."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,36}$", var.name))
    error_message = "name must have 1 to 37 letters, digits and hyphens, with no hyphen at either end"
  }
}

variable "mode" {
  description = "`realtime`: an answer at once, streamed or whole. `async`: an answer in S3, for work of up to an hour. `serverless`: no instance while nothing is asked, CPU only. `components`: instances alone, for the models that the module inference-component puts on them."
  type        = string
  default     = "realtime"
  nullable    = false

  validation {
    condition     = contains(["realtime", "async", "serverless", "components"], var.mode)
    error_message = "mode must be realtime, async, serverless or components"
  }
}

# --- The model -----------------------------------------------------------------

variable "image" {
  description = "Millrace's image in ECR, with a tag or, better, a digest. Null in the mode components, where each component has its own."
  type        = string
  default     = null

  validation {
    condition     = (var.image == null) == (var.mode == "components")
    error_message = "image is needed, except in the mode components, where it must be left out"
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
    condition     = var.weights == null || var.mode != "components"
    error_message = "weights are the components' in the mode components: give them to the module inference-component"
  }
  validation {
    condition     = var.mode != "serverless" || length(try(var.weights.additional, {})) == 0
    error_message = "weights.additional does not work on a serverless endpoint, for which SageMaker copies no prefix"
  }
  validation {
    condition     = var.mode != "serverless" || try(var.weights.stream || endswith(var.weights.s3_uri, ".tar.gz"), var.weights == null)
    error_message = "a serverless endpoint takes weights from an archive (.tar.gz) or, with stream = true, from a prefix"
  }
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
  validation {
    condition     = length(var.environment) == 0 || var.mode != "components"
    error_message = "environment is the components' in the mode components: give it to the module inference-component"
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
  validation {
    condition     = var.slots == null || var.mode != "components"
    error_message = "slots are the components' in the mode components: give them to the module inference-component"
  }
}

variable "network_isolation" {
  description = "Gives the container neither network nor credentials. SageMaker still copies the weights in."
  type        = bool
  default     = false
  nullable    = false

  validation {
    condition     = !var.network_isolation || !contains(["serverless", "components"], var.mode)
    error_message = "network_isolation: a serverless endpoint cannot be isolated, and in the mode components isolation is the components': give it to the module inference-component"
  }
}

variable "vpc" {
  description = "Subnets and security groups for the containers' network interfaces; null for SageMaker's own network."
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null

  validation {
    condition     = var.vpc == null || !contains(["serverless", "components"], var.mode)
    error_message = "vpc: a serverless endpoint cannot be in a VPC, and in the mode components the VPC is the components': give it to the module inference-component"
  }
}

# --- What it runs on -----------------------------------------------------------

variable "instance" {
  description = <<-EOT
    The instances; null in the mode serverless.
    `type`: such as ml.c7i.4xlarge; a GPU, as ml.g6.xlarge has, is for an image with the CUDA backend, and the image for CPUs leaves it idle. `count`: initial number.
    `managed_scaling`: in the mode components, SageMaker keeps as many instances, between `min` and `max`, as the components' copies need; a `min` of 0 lets the endpoint scale to zero. Without it there are always `count`.
    `fallback_types`: types to take, in this order, where `type` has no capacity; up to four, of the same processor, in the mode realtime.
    `volume_gb`: size of the disk of an instance without NVMe. `ami_version`: the host's image; null takes the one with a CUDA 13 driver for GPUs.
    `session_manager`: a shell in the container through Session Manager. `core_dump_s3_uri`: where crash dumps go, a prefix that ends in /; `core_dump_kms_key_arn` encrypts them.
    `capacity_reservation_arn`: an ML capacity reservation to take the instances from.
  EOT
  type = object({
    type                     = string
    count                    = optional(number, 1)
    fallback_types           = optional(list(string), [])
    managed_scaling          = optional(object({ min = number, max = number }))
    volume_gb                = optional(number)
    ami_version              = optional(string)
    session_manager          = optional(bool, false)
    core_dump_s3_uri         = optional(string)
    core_dump_kms_key_arn    = optional(string)
    capacity_reservation_arn = optional(string)
  })
  default = null

  validation {
    condition     = (var.instance == null) == (var.mode == "serverless")
    error_message = "instance is needed, except in the mode serverless, where it must be left out"
  }
  validation {
    condition     = var.instance == null || can(regex("^ml\\.[a-z0-9-]+\\.[a-z0-9]+$", var.instance.type))
    error_message = "instance.type must be a type of SageMaker's, like ml.c7i.4xlarge"
  }
  validation {
    condition     = length(try(var.instance.fallback_types, [])) <= 4 && alltrue([for type in try(var.instance.fallback_types, []) : can(regex("^ml\\.[a-z0-9-]+\\.[a-z0-9]+$", type))])
    error_message = "instance.fallback_types may have four types of SageMaker's, like ml.c6i.4xlarge"
  }
  validation {
    condition     = length(distinct(concat([try(var.instance.type, "")], try(var.instance.fallback_types, [])))) == 1 + length(try(var.instance.fallback_types, []))
    error_message = "instance.fallback_types: each type, and instance.type, may be there once"
  }
  validation {
    condition     = alltrue([for type in try(var.instance.fallback_types, []) : can(regex(local.arm_type, type)) == can(regex(local.arm_type, var.instance.type)) && can(regex(local.gpu_type, type)) == can(regex(local.gpu_type, var.instance.type))])
    error_message = "instance.fallback_types must have the processor of instance.type, for which the image is: either all or none are of Graviton, and all or none have a GPU"
  }
  validation {
    condition     = try(var.instance.volume_gb, null) == null || alltrue([for type in try(var.instance.fallback_types, []) : can(regex(local.nvme_type, type)) == can(regex(local.nvme_type, var.instance.type))])
    error_message = "instance.fallback_types: only some have NVMe, and instance.volume_gb suits the others only"
  }
  validation {
    condition     = length(try(var.instance.fallback_types, [])) == 0 || var.mode == "realtime"
    error_message = "instance.fallback_types works in the mode realtime only"
  }
  validation {
    condition     = try(var.instance.count >= 1 && floor(var.instance.count) == var.instance.count, true)
    error_message = "instance.count must be a whole number of at least 1; scaling to zero is a matter of the mode components or async"
  }
  validation {
    condition     = try(var.instance.managed_scaling, null) == null || var.mode == "components"
    error_message = "instance.managed_scaling works in the mode components only; autoscaling is for the others"
  }
  validation {
    condition     = try(var.instance.managed_scaling.min >= 0 && max(var.instance.managed_scaling.min, var.instance.count) <= var.instance.managed_scaling.max, true)
    error_message = "instance.managed_scaling must have 0 <= min <= max, and a max of at least instance.count, 1 if left out"
  }
  validation {
    condition     = try(var.instance.core_dump_s3_uri, null) == null || can(regex("^s3://[^/]+/(.*/)?$", var.instance.core_dump_s3_uri))
    error_message = "instance.core_dump_s3_uri must be a prefix with a / at the end, like s3://BUCKET/PREFIX/"
  }
  validation {
    condition     = try(var.instance.core_dump_kms_key_arn, null) == null || try(var.instance.core_dump_s3_uri, null) != null
    error_message = "instance.core_dump_kms_key_arn encrypts what goes to core_dump_s3_uri, which is missing"
  }
  validation {
    condition     = try(var.instance.volume_gb >= 1 && var.instance.volume_gb <= 512, true)
    error_message = "instance.volume_gb must be 1 to 512"
  }
  validation {
    condition     = try(var.instance.volume_gb, null) == null || !can(regex(local.nvme_type, var.instance.type))
    error_message = "instance.volume_gb: this type of instance has NVMe, and its disk is as large as that"
  }
}

variable "serverless" {
  description = "In the mode serverless: memory in MB (which also gives the share of CPU), most requests at once, and how many environments are kept warm. Null is 6144 MB and 10 requests."
  type = object({
    memory_mb               = optional(number, 6144)
    max_concurrency         = optional(number, 10)
    provisioned_concurrency = optional(number)
  })
  default = null

  validation {
    condition     = var.serverless == null || var.mode == "serverless"
    error_message = "serverless is for the mode serverless"
  }
  validation {
    condition     = var.serverless == null || contains([1024, 2048, 3072, 4096, 5120, 6144], try(var.serverless.memory_mb, 0))
    error_message = "serverless.memory_mb must be 1024, 2048, 3072, 4096, 5120 or 6144"
  }
  validation {
    condition     = try(var.serverless.max_concurrency >= 1 && var.serverless.max_concurrency <= 200, true)
    error_message = "serverless.max_concurrency must be 1 to 200"
  }
  validation {
    condition     = try(var.serverless.provisioned_concurrency >= 1 && var.serverless.provisioned_concurrency <= var.serverless.max_concurrency, true)
    error_message = "serverless.provisioned_concurrency must be 1 to max_concurrency"
  }
}

variable "async" {
  description = <<-EOT
    In the mode async: prefixes in S3, each with a / at the end, for answers, for errors, and for the requests that callers upload (`input_s3_uris`: what the endpoint may read); topics for notices; most requests at once per instance (null: as many as slots).
  EOT
  type = object({
    output_s3_uri     = string
    input_s3_uris     = list(string)
    failure_s3_uri    = optional(string)
    kms_key_arn       = optional(string)
    success_topic_arn = optional(string)
    error_topic_arn   = optional(string)
    max_concurrency   = optional(number)
  })
  default = null

  validation {
    condition     = (var.async != null) == (var.mode == "async")
    error_message = "async is needed in the mode async, and must be left out in the others"
  }
  validation {
    condition     = var.async == null || try(alltrue([for uri in concat(compact([var.async.output_s3_uri, var.async.failure_s3_uri]), var.async.input_s3_uris) : can(regex("^s3://[^/]+/(.*/)?$", uri))]), false)
    error_message = "async: output_s3_uri, failure_s3_uri and each of input_s3_uris must be a prefix with a / at the end, like s3://BUCKET/PREFIX/"
  }
  validation {
    condition     = try(var.async.max_concurrency >= 1 && var.async.max_concurrency <= 1000, true)
    error_message = "async.max_concurrency must be 1 to 1000"
  }
}

variable "timeouts" {
  description = "Seconds for the copy of the weights to the instance, and from the container's start to its first healthy ping; null is 1800 and 900."
  type = object({
    download = optional(number, 1800)
    startup  = optional(number, 900)
  })
  default = null

  validation {
    condition     = try(alltrue([for seconds in [var.timeouts.download, var.timeouts.startup] : seconds >= 60 && seconds <= 3600]), true)
    error_message = "timeouts.download and timeouts.startup must be 60 to 3600 seconds"
  }
  validation {
    condition     = var.timeouts == null || contains(["realtime", "async"], var.mode)
    error_message = "timeouts are for the modes realtime and async: a serverless endpoint has AWS's own, and components have theirs in the module inference-component"
  }
}

variable "volume_kms_key_arn" {
  description = "Key that encrypts the instances' disks. Those with NVMe encrypt it themselves and take no key."
  type        = string
  default     = null

  validation {
    condition     = var.volume_kms_key_arn == null || !can(regex(local.nvme_type, var.instance.type))
    error_message = "volume_kms_key_arn: this type of instance has NVMe, which takes no key"
  }
  validation {
    condition     = var.volume_kms_key_arn == null || !anytrue([for type in try(var.instance.fallback_types, []) : can(regex(local.nvme_type, type))])
    error_message = "volume_kms_key_arn: one of instance.fallback_types has NVMe, which takes no key"
  }
  validation {
    condition     = var.volume_kms_key_arn == null || var.mode != "serverless"
    error_message = "volume_kms_key_arn: a serverless endpoint has no disk to encrypt"
  }
}

# --- Which copy a request goes to ------------------------------------------------

variable "routing" {
  description = <<-EOT
    How requests are spread over instances; null is LEAST_OUTSTANDING_REQUESTS. `strategy`: that, `RANDOM`, or `PREFIX_AWARE`, which keeps requests that begin alike on one instance, whose cache has what they share.
    With PREFIX_AWARE: `prefix_length`: how much of a request's beginning decides, 1024 to 65536 bytes (in SageMaker's OpenAI API: characters of the messages); cover the system prompt and a little more. `concurrency_threshold`: requests at once, 1 to 1024, from which on an instance's go to another; as many as slots if null.
  EOT
  type = object({
    strategy              = optional(string, "LEAST_OUTSTANDING_REQUESTS")
    prefix_length         = optional(number)
    concurrency_threshold = optional(number)
  })
  default = null

  validation {
    condition     = contains(["LEAST_OUTSTANDING_REQUESTS", "RANDOM", "PREFIX_AWARE"], try(var.routing.strategy, "RANDOM"))
    error_message = "routing.strategy must be LEAST_OUTSTANDING_REQUESTS, RANDOM or PREFIX_AWARE"
  }
  validation {
    condition     = var.routing == null || var.mode != "serverless"
    error_message = "routing has no meaning on a serverless endpoint, which has no instances to choose from"
  }
  validation {
    condition     = try(var.routing.strategy, "") != "PREFIX_AWARE" || contains(["realtime", "components"], var.mode)
    error_message = "routing.strategy: PREFIX_AWARE is for the modes realtime and components"
  }
  validation {
    condition     = try(var.routing.strategy, "") == "PREFIX_AWARE" || try(var.routing.prefix_length, null) == null && try(var.routing.concurrency_threshold, null) == null
    error_message = "routing.prefix_length and routing.concurrency_threshold have a meaning with the strategy PREFIX_AWARE only"
  }
  validation {
    condition     = try(var.routing.strategy, "") != "PREFIX_AWARE" || try(var.routing.prefix_length >= 1024 && var.routing.prefix_length <= 65536 && floor(var.routing.prefix_length) == var.routing.prefix_length, false)
    error_message = "routing.prefix_length must be a whole number of 1024 to 65536 with the strategy PREFIX_AWARE"
  }
  validation {
    condition     = try(var.routing.concurrency_threshold, null) == null || try(var.routing.concurrency_threshold >= 1 && var.routing.concurrency_threshold <= 1024 && floor(var.routing.concurrency_threshold) == var.routing.concurrency_threshold, false)
    error_message = "routing.concurrency_threshold must be a whole number of 1 to 1024"
  }
  validation {
    condition     = var.mode != "components" || try(var.routing.strategy, "") != "PREFIX_AWARE" || try(var.routing.concurrency_threshold, null) != null
    error_message = "routing.concurrency_threshold is needed in the mode components, whose slots are the components'"
  }
}

variable "shadow" {
  description = <<-EOT
    In the mode realtime: another image that gets a copy of `percent` of the requests, on as many instances of its own, and whose answers are dropped; null for none. `environment` is set beside the endpoint's. Compare the metrics of the two variants, `main` and `shadow`, before the image becomes the endpoint's.
  EOT
  type = object({
    image       = string
    environment = optional(map(string), {})
    percent     = optional(number, 100)
  })
  default = null

  validation {
    condition     = var.shadow == null || var.mode == "realtime"
    error_message = "shadow is for the mode realtime"
  }
  validation {
    condition     = var.shadow == null || try(var.shadow.image != var.image || length(var.shadow.environment) > 0, false)
    error_message = "shadow.image is the endpoint's own image: name another, or give shadow.environment what is to differ"
  }
  validation {
    condition     = try(var.shadow.percent > 0 && var.shadow.percent <= 100, true)
    error_message = "shadow.percent must be more than 0 and at most 100"
  }
  validation {
    condition     = var.shadow == null || length(try(var.instance.fallback_types, [])) == 0
    error_message = "shadow: both variants must run on the same machines, to be compared; leave out instance.fallback_types"
  }
  validation {
    condition     = var.shadow == null || var.deployment == null
    error_message = "shadow: SageMaker updates an endpoint with a shadow in its own way only; leave out deployment"
  }
}

# --- Scaling and change ----------------------------------------------------------

variable "autoscaling" {
  description = <<-EOT
    Scales the number of instances between `min` and `max`; null keeps instance.count. In the mode components, components scale and instances follow.
    realtime: `target` is how many requests at once an instance should have, 0.7 of slots if null. async: how many should be answered or wait per instance, as many as it answers at once if null; `min` may be 0.
  EOT
  type = object({
    min                = optional(number, 1)
    max                = number
    target             = optional(number)
    scale_in_cooldown  = optional(number, 300)
    scale_out_cooldown = optional(number, 60)
  })
  default = null

  validation {
    condition     = var.autoscaling == null || contains(["realtime", "async"], var.mode)
    error_message = "autoscaling is for the modes realtime and async"
  }
  validation {
    condition     = try(var.autoscaling.min >= (var.mode == "async" ? 0 : 1) && var.autoscaling.min <= var.autoscaling.max, true)
    error_message = "autoscaling must have min <= max, and a min of at least 1, or 0 in the mode async"
  }
  validation {
    condition     = try(var.instance.count <= var.autoscaling.max, true)
    error_message = "instance.count is more than autoscaling.max: an update would begin with instances that scaling takes away"
  }
  validation {
    condition     = try(var.autoscaling.target > 0, true) && try(var.autoscaling.scale_in_cooldown >= 0 && var.autoscaling.scale_out_cooldown >= 0, true)
    error_message = "autoscaling.target must be more than 0, and its cooldowns 0 seconds or more"
  }
}

variable "deployment" {
  description = <<-EOT
    How an update reaches an endpoint that serves; null is all at once. `strategy`: `all_at_once`, `canary` and `linear` start a second fleet, `rolling` replaces the fleet in batches. All but the first take two instances or more.
    `percent`: of the canary, of a linear step (10 to 50), or of a batch (5 to 50), 25 if null. `wait_seconds`: between steps. `keep_old_seconds`: how long the old fleet stays after the traffic has moved, 300 if null.
    `rollback_on_alarm`: goes back if an alarm of this module fires meanwhile.
  EOT
  type = object({
    strategy          = optional(string, "all_at_once")
    percent           = optional(number)
    wait_seconds      = optional(number, 300)
    keep_old_seconds  = optional(number)
    timeout_seconds   = optional(number, 7200)
    rollback_on_alarm = optional(bool, true)
  })
  default = null

  validation {
    condition     = var.deployment == null || contains(["realtime", "async"], var.mode)
    error_message = "deployment is for the modes realtime and async"
  }
  validation {
    condition     = contains(["all_at_once", "canary", "linear", "rolling"], try(var.deployment.strategy, "all_at_once"))
    error_message = "deployment.strategy must be all_at_once, canary, linear or rolling"
  }
  validation {
    condition     = try(var.deployment.strategy, "all_at_once") == "all_at_once" || max(try(var.instance.count, 1), try(var.autoscaling.min, 1)) >= 2
    error_message = "deployment.strategy: canary, linear and rolling move at most half of the instances at a time, so they need an instance.count or an autoscaling.min of 2 or more; AWS would refuse the first update"
  }
  validation {
    condition     = try(var.deployment.percent >= (var.deployment.strategy == "linear" ? 10 : 5) && var.deployment.percent <= 50, true)
    error_message = "deployment.percent must be 5 to 50, and at least 10 if the strategy is linear"
  }
  validation {
    condition     = try(var.deployment.percent, null) == null || try(var.deployment.strategy, "") != "all_at_once"
    error_message = "deployment.percent has no meaning where the strategy is all_at_once"
  }
  validation {
    condition     = try(var.deployment.keep_old_seconds, null) == null || try(var.deployment.strategy, "") != "rolling"
    error_message = "deployment.keep_old_seconds has no meaning where the strategy is rolling, which has no second fleet"
  }
  validation {
    condition     = try(alltrue([for s in [var.deployment.wait_seconds, coalesce(var.deployment.keep_old_seconds, 0)] : s >= 0 && s <= 3600]) && var.deployment.timeout_seconds >= 600 && var.deployment.timeout_seconds <= 14400, true)
    error_message = "deployment: wait_seconds and keep_old_seconds must be 0 to 3600, timeout_seconds 600 to 14400"
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

variable "metrics" {
  description = <<-EOT
    Metrics that SageMaker publishes beyond its usual ones, in the modes realtime and components; null for none. CloudWatch bills each.
    `detailed`: what the container's `/metrics` has, and the use of each GPU and of each instance. `enhanced`: calls and utilization by instance and by container. `frequency_seconds`: how often, 10, 30, 60, 120, 180, 240 or 300.
  EOT
  type = object({
    detailed          = optional(bool, true)
    enhanced          = optional(bool, false)
    frequency_seconds = optional(number, 60)
  })
  default = null

  validation {
    condition     = var.metrics == null || contains(["realtime", "components"], var.mode)
    error_message = "metrics are for the modes realtime and components"
  }
  validation {
    condition     = contains([10, 30, 60, 120, 180, 240, 300], try(var.metrics.frequency_seconds, 60))
    error_message = "metrics.frequency_seconds must be 10, 30, 60, 120, 180, 240 or 300"
  }
}

variable "alarms" {
  description = <<-EOT
    Alarms, and where they are sent (`action_arns`, such as an SNS topic). A limit of -1 disables that alarm.
    `server_errors`: answers of the class 5xx in five minutes. `mid_stream_errors`: streams that broke in five minutes.
    `latency_ms`: 99th percentile of the time to a complete answer, the whole of a stream included; null is near the time at which answers are cut: 450000 in the mode realtime (55000 sees more where nobody streams), 55000 serverless, none async.
  EOT
  type = object({
    enabled           = optional(bool, true)
    action_arns       = optional(list(string), [])
    server_errors     = optional(number, 5)
    latency_ms        = optional(number)
    mid_stream_errors = optional(number, 5)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for limit in [var.alarms.server_errors, var.alarms.mid_stream_errors, coalesce(var.alarms.latency_ms, 0)] : limit >= -1])
    error_message = "alarms: a limit must be 0 or more, or -1 for no alarm"
  }
  validation {
    condition     = var.mode != "components" || length(var.alarms.action_arns) == 0
    error_message = "alarms are the components' in the mode components: give them to the module inference-component"
  }
}

variable "data_capture" {
  description = "Records a share of requests and answers in S3, under a prefix that ends in /; null keeps none. They contain what users write."
  type = object({
    s3_uri      = string
    percent     = optional(number, 100)
    kms_key_arn = optional(string)
  })
  default = null

  validation {
    condition     = var.data_capture == null || contains(["realtime", "async"], var.mode)
    error_message = "data_capture is for the modes realtime and async"
  }
  validation {
    condition     = var.data_capture == null || can(regex("^s3://[^/]+/(.*/)?$", var.data_capture.s3_uri))
    error_message = "data_capture.s3_uri must be a prefix with a / at the end, like s3://BUCKET/PREFIX/"
  }
  validation {
    condition     = try(var.data_capture.percent >= 0 && var.data_capture.percent <= 100, true)
    error_message = "data_capture.percent must be 0 to 100"
  }
}

# --- Permissions and tags --------------------------------------------------------

variable "execution_role_arn" {
  description = "A role to use as it is; null creates one that may do only what this endpoint needs."
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
    condition     = var.role_name == null || try(can(regex("^[\\w+=,.@-]{1,57}$", var.role_name)) && (length(var.role_name) <= 37 || !var.role_use_name_prefix), false)
    error_message = "role_name must have 1 to 37 letters, digits or any of _+=,.@-, or 57 without role_use_name_prefix"
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
