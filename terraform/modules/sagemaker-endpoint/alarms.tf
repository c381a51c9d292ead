locals {
  # Near where answers are cut: SageMaker waits 480 s for a stream, 60 s for one in
  # one piece, an hour for one that nobody waits for.
  latency_ms = var.alarms.latency_ms != null ? var.alarms.latency_ms : { realtime = 450000, serverless = 55000, async = -1, components = -1 }[var.mode]

  limits = {
    server-errors = {
      metric = "Invocation5XXErrors", limit = var.alarms.server_errors
      says   = "answers with a server's error"
    }
    mid-stream-errors = {
      metric = "MidStreamErrors", limit = var.mode == "realtime" ? var.alarms.mid_stream_errors : -1
      says   = "breaks streams off"
    }
    latency = {
      metric = "ModelLatency", statistic = "p99"
      limit  = local.latency_ms * 1000 # the metric is in microseconds
      says   = "is slow to answer"
    }
  }
}

module "alarms" {
  source = "../alarms"

  create      = var.create && var.alarms.enabled && !local.components # which have metrics, and alarms, of their own
  name        = var.name
  subject     = "The endpoint ${var.name}"
  namespace   = "AWS/SageMaker"
  dimensions  = { EndpointName = var.name, VariantName = local.variant }
  limits      = local.limits
  action_arns = var.alarms.action_arns
  tags        = var.tags
}

moved {
  from = aws_cloudwatch_metric_alarm.this
  to   = module.alarms.aws_cloudwatch_metric_alarm.this
}
