output "name" {
  description = "Name of the model."
  value       = aws_sagemaker_model.this.name
}

output "arn" {
  description = "ARN of the model."
  value       = aws_sagemaker_model.this.arn
}

output "execution_role_arn" {
  description = "ARN of the role that the container runs as."
  value       = aws_sagemaker_model.this.execution_role_arn
}

output "policy_json" {
  description = "The policy of the role that was made; null where one was given."
  value       = one(module.role[*].policy_json)
}
