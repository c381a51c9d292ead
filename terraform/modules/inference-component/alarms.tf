locals {
  limits = {
    server-errors = {
      metric = "Invocation5XXErrors", statistic = "Sum", limit = var.alarms.server_errors
      says   = "answers with a server's error"
    }
    latency = {
      metric = "ModelLatency", statistic = "p99"
      limit  = var.alarms.latency_ms * 1000 # the metric is in microseconds
      says   = "is slow to answer"
    }
  }
  alarms = { for name, alarm in local.limits : name => alarm if var.alarms.enabled && alarm.limit >= 0 }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "The component ${var.name} ${each.value.says}"
  namespace           = "AWS/SageMaker"
  metric_name         = each.value.metric
  dimensions          = { InferenceComponentName = var.name }
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
