locals {
  limits = {
    server-errors = {
      metric = "Invocation5XXErrors", limit = var.alarms.server_errors
      says   = "answers with a server's error"
    }
    latency = {
      metric = "ModelLatency", statistic = "p99"
      limit  = var.alarms.latency_ms * 1000 # the metric is in microseconds
      says   = "is slow to answer"
    }
  }
}

module "alarms" {
  source = "../alarms"

  create      = var.create && var.alarms.enabled
  name        = var.name
  subject     = "The component ${var.name}"
  namespace   = "AWS/SageMaker"
  dimensions  = { InferenceComponentName = var.name }
  limits      = local.limits
  action_arns = var.alarms.action_arns
  tags        = var.tags
}

moved {
  from = aws_cloudwatch_metric_alarm.this
  to   = module.alarms.aws_cloudwatch_metric_alarm.this
}
