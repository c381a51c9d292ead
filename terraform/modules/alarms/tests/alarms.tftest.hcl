mock_provider "aws" {}

variables {
  name       = "chat"
  subject    = "The endpoint chat"
  namespace  = "AWS/SageMaker"
  dimensions = { EndpointName = "chat" }
  limits = {
    server-errors = { metric = "Invocation5XXErrors", limit = 0, says = "answers with a server's error" }
    latency       = { metric = "ModelLatency", statistic = "p99", limit = 1000, says = "is slow to answer" }
    none          = { metric = "MidStreamErrors", limit = -1, says = "breaks streams off" }
  }
  action_arns = ["arn:aws:sns:eu-west-1:123456789012:pager"]
}

run "with_limits" {
  command = plan

  assert {
    condition     = output.names == ["chat-latency", "chat-server-errors"]
    error_message = "alarms ${jsonencode(output.names)}"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["latency"].extended_statistic == "p99" && aws_cloudwatch_metric_alarm.this["latency"].statistic == null && aws_cloudwatch_metric_alarm.this["latency"].threshold == 1000
    error_message = "latency is not a percentile"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["server-errors"].statistic == "Sum" && aws_cloudwatch_metric_alarm.this["server-errors"].alarm_description == "The endpoint chat answers with a server's error"
    error_message = "errors are not counted"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["latency"].alarm_actions == toset(var.action_arns) && aws_cloudwatch_metric_alarm.this["latency"].ok_actions == toset(var.action_arns)
    error_message = "nobody hears of it"
  }
}

run "of_another_statistic" {
  command = plan

  variables {
    limits = { latency = { metric = "ModelLatency", statistic = "Average", limit = 1, says = "is slow to answer" } }
  }

  expect_failures = [var.limits]
}
