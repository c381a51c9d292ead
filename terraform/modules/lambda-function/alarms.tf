locals {
  limits = {
    throttles = { metric = "Throttles", limit = var.alarms.throttles, says = "is called more than its concurrency allows" }
    duration = {
      metric = "Duration", statistic = "p99", says = "comes near its timeout"
      limit  = var.timeout_seconds * var.alarms.duration_percent * 10 # in ms
    }
  }
}

# Lambda's metric Errors counts calls that were refused as well, such as those with
# a temperature of -1. The server marks them in its log.
resource "aws_cloudwatch_log_metric_filter" "refused" {
  count = var.create ? 1 : 0

  name           = "${var.name}-refused"
  log_group_name = aws_cloudwatch_log_group.this[0].name
  pattern        = "{ $.refused IS TRUE }"

  metric_transformation {
    name          = "Refused"
    namespace     = "Millrace/${var.name}"
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  count = var.create && var.alarms.enabled && var.alarms.errors >= 0 ? 1 : 0

  alarm_name          = "${var.name}-errors"
  alarm_description   = "The function ${var.name} fails"
  evaluation_periods  = 1
  threshold           = var.alarms.errors
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarms.action_arns
  ok_actions          = var.alarms.action_arns
  tags                = var.tags

  metric_query {
    id          = "faults"
    label       = "Errors that are not the caller's"
    expression  = "errors - FILL(refused, 0)"
    return_data = true
  }
  metric_query {
    id = "errors"

    metric {
      namespace   = "AWS/Lambda"
      metric_name = "Errors"
      dimensions  = { FunctionName = aws_lambda_function.this[0].function_name }
      stat        = "Sum"
      period      = 300
    }
  }
  metric_query {
    id = "refused"

    metric {
      namespace   = one(aws_cloudwatch_log_metric_filter.refused[0].metric_transformation[*].namespace)
      metric_name = one(aws_cloudwatch_log_metric_filter.refused[0].metric_transformation[*].name)
      stat        = "Sum"
      period      = 300
    }
  }
}

module "alarms" {
  source = "../alarms"

  create      = var.create && var.alarms.enabled
  name        = var.name
  subject     = "The function ${var.name}"
  namespace   = "AWS/Lambda"
  dimensions  = { FunctionName = var.name }
  limits      = local.limits
  action_arns = var.alarms.action_arns
  tags        = var.tags
}

moved {
  from = aws_cloudwatch_metric_alarm.this
  to   = module.alarms.aws_cloudwatch_metric_alarm.this
}
