resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = { for name, limit in var.limits : name => limit if var.create && limit.limit >= 0 }

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${var.subject} ${each.value.says}"
  namespace           = var.namespace
  metric_name         = each.value.metric
  dimensions          = var.dimensions
  statistic           = each.value.statistic == "Sum" ? "Sum" : null
  extended_statistic  = each.value.statistic == "Sum" ? null : each.value.statistic
  period              = 300
  evaluation_periods  = 1
  threshold           = each.value.limit
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.action_arns
  ok_actions          = var.action_arns
  tags                = var.tags
}
