terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.69, < 7.0"
    }
    # The aws provider has no inference components.
    awscc = {
      source  = "hashicorp/awscc"
      version = ">= 1.106, < 2.0"
    }
  }
}
