output "names" {
  description = "Names of the alarms."
  value       = [for alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_name]
}

output "alarms" {
  description = "The alarms, by the ends of their names."
  value       = aws_cloudwatch_metric_alarm.this
}
