output "name" {
  description = "Name of the function."
  value       = one(aws_lambda_function.this[*].function_name)
}

output "arn" {
  description = "ARN of the function."
  value       = one(aws_lambda_function.this[*].arn)
}

output "alias_arn" {
  description = "ARN of the alias that callers use."
  value       = one(aws_lambda_alias.live[*].arn)
}

output "url" {
  description = "URL of the function; null where none was asked for."
  value       = one(aws_lambda_function_url.this[*].function_url)
}

output "role_arn" {
  description = "ARN of the function's role."
  value       = one(aws_iam_role.this[*].arn)
}

output "role_name" {
  description = "Name of the function's role, to attach more policies to."
  value       = one(aws_iam_role.this[*].name)
}

output "policy_json" {
  description = "The policy of the function's role."
  value       = one(aws_iam_role_policy.this[*].policy)
}

output "invoke_policy_json" {
  description = "A policy for those who call the function, by its URL or directly."
  value = !var.create ? null : jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"]
      Resource = [aws_lambda_alias.live[0].arn]
    }]
  })
}

output "log_group_name" {
  description = "CloudWatch log group of the function."
  value       = one(aws_cloudwatch_log_group.this[*].name)
}

output "alarm_names" {
  description = "Names of the alarms."
  value       = [for name in sort(concat(module.alarms.names, aws_cloudwatch_metric_alarm.errors[*].alarm_name)) : name]
}
