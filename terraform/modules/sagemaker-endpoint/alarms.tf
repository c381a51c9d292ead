locals {
  # Near where answers are cut: SageMaker waits 480 s for a stream, 60 s for one in
  # one piece, an hour for one that nobody waits for.
  latency_ms = var.alarms.latency_ms != null ? var.alarms.latency_ms : { realtime = 450000, serverless = 55000, async = -1, components = -1 }[var.mode]

  limits = {
    server-errors = {
      metric = "Invocation5XXErrors", statistic = "Sum", limit = var.alarms.server_errors
      says   = "answers with a server's error"
    }
    mid-stream-errors = {
      metric = "MidStreamErrors", statistic = "Sum", limit = var.mode == "realtime" ? var.alarms.mid_stream_errors : -1
      says   = "breaks streams off"
    }
    latency = {
      metric = "ModelLatency", statistic = "p99"
      limit  = local.latency_ms * 1000 # the metric is in microseconds
      says   = "is slow to answer"
    }
  }
  # Components have metrics, and alarms, of their own.
  alarms = { for name, alarm in local.limits : name => alarm if var.alarms.enabled && !local.components && alarm.limit >= 0 }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "The endpoint ${var.name} ${each.value.says}"
  namespace           = "AWS/SageMaker"
  metric_name         = each.value.metric
  dimensions          = { EndpointName = var.name, VariantName = local.variant }
  statistic           = each.value.statistic == "Sum" ? "Sum" : null
  extended_statistic  = each.value.statistic == "Sum" ? null : each.value.statistic
  period              = 300
  evaluation_periods  = 1
  threshold           = each.value.limit
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarms.action_arns
  ok_actions          = var.alarms.action_arns
  tags                = var.tags
}
