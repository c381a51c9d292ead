locals {
  sleeps = var.create && var.copies.min == 0
}

resource "aws_appautoscaling_target" "this" {
  count = var.create ? 1 : 0

  service_namespace  = "sagemaker"
  scalable_dimension = "sagemaker:inference-component:DesiredCopyCount"
  resource_id        = "inference-component/${awscc_sagemaker_inference_component.this[0].inference_component_name}"
  min_capacity       = var.copies.min
  max_capacity       = var.copies.max
  tags               = var.tags
}

# Counts what runs and what waits every ten seconds: it sees a queue of long
# generations minutes before a count of finished requests does.
resource "aws_appautoscaling_policy" "load" {
  count = var.create ? 1 : 0

  name               = "${var.name}-load"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = coalesce(var.copies.target, max(1, floor(local.slots * 0.7)))
    scale_in_cooldown  = var.copies.scale_in_cooldown
    scale_out_cooldown = var.copies.scale_out_cooldown

    predefined_metric_specification {
      predefined_metric_type = "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
    }
  }
}

# With no copy there is no load per copy: this one wakes the first, when a
# request has failed for want of it.
resource "aws_appautoscaling_policy" "wake" {
  count = local.sleeps ? 1 : 0

  name               = "${var.name}-wake"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    metric_aggregation_type = "Maximum"
    cooldown                = var.copies.scale_out_cooldown

    step_adjustment {
      metric_interval_lower_bound = 0
      scaling_adjustment          = 1
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "wake" {
  count = local.sleeps ? 1 : 0

  alarm_name          = "${var.name}-wake"
  alarm_description   = "Requests fail at ${var.name}, which has no copy"
  namespace           = "AWS/SageMaker"
  metric_name         = "NoCapacityInvocationFailures"
  dimensions          = { InferenceComponentName = var.name }
  statistic           = "Maximum"
  period              = 30
  evaluation_periods  = 1
  datapoints_to_alarm = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "missing"
  alarm_actions       = [aws_appautoscaling_policy.wake[0].arn]
  tags                = var.tags
}
