output "name" {
  description = "Name of the model."
  value       = one(aws_sagemaker_model.this[*].name)
}

output "arn" {
  description = "ARN of the model."
  value       = one(aws_sagemaker_model.this[*].arn)
}

output "execution_role_arn" {
  description = "ARN of the role that the container runs as."
  value       = one(aws_sagemaker_model.this[*].execution_role_arn)
}

output "execution_role_name" {
  description = "Name of the role that was made, to attach more policies to; null where one was given."
  value       = one(module.role[*].name)
}

output "policy_json" {
  description = "The policy of the role that was made; null where one was given."
  value       = one(module.role[*].policy_json)
}
