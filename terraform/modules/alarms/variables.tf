variable "create" {
  description = "Whether to create anything. False deletes what was created, and keeps the configuration."
  type        = bool
  default     = true
  nullable    = false
}

variable "name" {
  description = "Prefix of the alarms' names."
  type        = string
  nullable    = false
}

variable "subject" {
  description = "What the alarms are about, with which their descriptions begin: `The endpoint chat`."
  type        = string
  nullable    = false
}

variable "namespace" {
  description = "Namespace of the metrics."
  type        = string
  nullable    = false
}

variable "dimensions" {
  description = "Dimensions of the metrics."
  type        = map(string)
  nullable    = false
}

variable "limits" {
  description = "The alarms, by the ends of their names. Each fires when the `statistic` of `metric` over five minutes, its `Sum` or a percentile such as `p99`, is more than `limit`, and `says` then what the subject does. A negative limit makes no alarm."
  type = map(object({
    metric    = string
    statistic = optional(string, "Sum")
    limit     = number
    says      = string
  }))
  nullable = false

  validation {
    condition     = alltrue([for limit in values(var.limits) : can(regex("^(Sum|p\\d{1,2}(\\.\\d{1,10})?)$", limit.statistic))])
    error_message = "limits: a statistic must be Sum or a percentile, such as p99"
  }
}

variable "action_arns" {
  description = "Where the alarms are sent, such as an SNS topic, when they fire and when all is well again."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "tags" {
  description = "Tags of the alarms."
  type        = map(string)
  default     = {}
  nullable    = false
}
