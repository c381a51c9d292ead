output "name" {
  description = "Name of the component: InferenceComponentName for the invoke calls."
  value       = one(awscc_sagemaker_inference_component.this[*].inference_component_name)
}

output "arn" {
  description = "ARN of the component."
  value       = one(awscc_sagemaker_inference_component.this[*].inference_component_arn)
}

output "adapter_names" {
  description = "Names of the adapters' components, by the adapter's name."
  value       = { for name, component in awscc_sagemaker_inference_component.adapter : name => component.inference_component_name }
}

output "model_name" {
  description = "Name of the model."
  value       = module.model.name
}

output "execution_role_arn" {
  description = "ARN of the role that the container runs as."
  value       = module.model.execution_role_arn
}

output "execution_role_name" {
  description = "Name of the role that was made, to attach more policies to; null where one was given."
  value       = module.model.execution_role_name
}

output "invoke_policy_json" {
  description = "A policy for those who call the component and its adapters, beside that for the endpoint."
  value = !var.create ? null : jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Action = ["sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream", "sagemaker:InvokeEndpointWithBidirectionalStream"]
      Resource = concat(
        [awscc_sagemaker_inference_component.this[0].inference_component_arn],
        [for component in awscc_sagemaker_inference_component.adapter : component.inference_component_arn],
      )
    }]
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
