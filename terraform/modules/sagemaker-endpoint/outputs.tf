output "name" {
  description = "Name of the endpoint: EndpointName for invoke_endpoint and invoke_endpoint_with_response_stream."
  value       = one(aws_sagemaker_endpoint.this[*].name)
}

output "arn" {
  description = "ARN of the endpoint."
  value       = one(aws_sagemaker_endpoint.this[*].arn)
}

output "variant_name" {
  description = "Name of the variant that answers."
  value       = local.variant
}

output "model_name" {
  description = "Name of the model; null in the mode components."
  value       = one(module.model[*].name)
}

output "execution_role_arn" {
  description = "ARN of the role that the container runs as; in the mode components, that of the endpoint."
  value       = var.create ? coalesce(var.execution_role_arn, one(module.model[*].execution_role_arn), one(module.role[*].arn)) : null
}

output "execution_role_name" {
  description = "Name of the role that was made, to attach more policies to; null where one was given."
  value       = one(concat(module.model[*].execution_role_name, module.role[*].name))
}

output "execution_policy_json" {
  description = "The policy of the role that was made; null where one was given."
  value       = one(concat(module.model[*].policy_json, module.role[*].policy_json))
}

output "invoke_policy_json" {
  description = "A policy for those who call the endpoint; except in the mode async, also with a bearer token, as OpenAI's clients do."
  value = !var.create ? null : jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Effect = "Allow"
        Action = var.mode == "async" ? ["sagemaker:InvokeEndpointAsync"] : [
          "sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream", "sagemaker:InvokeEndpointWithBidirectionalStream",
        ]
        Resource = [aws_sagemaker_endpoint.this[0].arn]
      }],
      var.mode == "async" ? [] : [{
        Effect   = "Allow"
        Action   = ["sagemaker:CallWithBearerToken"] # has no resource; what the token may call, the first statement says
        Resource = ["*"]
      }],
    )
  })
}

output "log_group_name" {
  description = "CloudWatch log group of the containers."
  value       = one(aws_cloudwatch_log_group.this[*].name)
}

output "alarm_names" {
  description = "Names of the alarms."
  value       = module.alarms.names
}
