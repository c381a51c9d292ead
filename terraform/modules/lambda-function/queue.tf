# A message that fails for no fault of its own comes again, and the others do not.
resource "aws_lambda_event_source_mapping" "queue" {
  count = var.create && var.queue != null ? 1 : 0

  event_source_arn        = var.queue.arn
  function_name           = aws_lambda_alias.live[0].arn
  batch_size              = var.queue.batch_size
  function_response_types = ["ReportBatchItemFailures"]
  tags                    = var.tags

  dynamic "scaling_config" {
    for_each = var.queue.max_concurrency[*]

    content {
      maximum_concurrency = scaling_config.value
    }
  }

  # Lambda tries the permissions when the mapping is made.
  depends_on = [aws_iam_role_policy.this]
}
