provider "aws" {
  region = var.region
}

resource "aws_sns_topic" "failed" {
  # checkov:skip=CKV_AWS_26:the notices hold where an answer is, and no text of it
  name = "${var.name}-failed"
}

module "summaries" {
  source = "../../modules/sagemaker-endpoint"

  name        = var.name
  mode        = "async"
  image       = var.image
  weights     = { s3_uri = var.weights }
  instance    = { type = "ml.c7i.4xlarge" }
  autoscaling = { min = 0, max = 2 }

  async = {
    input_s3_uris   = ["s3://${var.bucket}/in/"]
    output_s3_uri   = "s3://${var.bucket}/out/"
    failure_s3_uri  = "s3://${var.bucket}/failed/"
    error_topic_arn = aws_sns_topic.failed.arn
  }
}
