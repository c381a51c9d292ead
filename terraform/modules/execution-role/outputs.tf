output "arn" {
  description = "ARN of the role, once it has its policy: SageMaker tries both when a model is created."
  value       = one(aws_iam_role.this[*].arn)
  depends_on  = [aws_iam_role_policy.this]
}

output "name" {
  description = "Name of the role."
  value       = one(aws_iam_role.this[*].name)
}

output "policy_json" {
  description = "The policy of the role."
  value       = one(aws_iam_role_policy.this[*].policy)
}
