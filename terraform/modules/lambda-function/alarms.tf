locals {
  limits = {
    errors    = { metric = "Errors", statistic = "Sum", limit = var.alarms.errors, says = "fails" }
    throttles = { metric = "Throttles", statistic = "Sum", limit = var.alarms.throttles, says = "is called more than its concurrency allows" }
    duration = {
      metric = "Duration", statistic = "p99", says = "comes near its timeout"
      limit  = var.timeout_seconds * var.alarms.duration_percent * 10 # in ms
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = { for name, alarm in local.limits : name => alarm if var.alarms.enabled && alarm.limit >= 0 }

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "The function ${var.name} ${each.value.says}"
  namespace           = "AWS/Lambda"
  metric_name         = each.value.metric
  dimensions          = { FunctionName = aws_lambda_function.this.function_name }
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
