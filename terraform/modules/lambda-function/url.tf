locals {
  public  = try(var.url.auth == "NONE", false)
  callers = !var.create || var.url == null ? [] : (local.public ? ["*"] : var.url.principals)
}

resource "aws_lambda_function_url" "this" {
  # checkov:skip=CKV_AWS_258:auth is AWS_IAM unless the user says NONE
  count = var.create && var.url != null ? 1 : 0

  function_name      = aws_lambda_function.this[0].function_name
  qualifier          = aws_lambda_alias.live[0].name
  authorization_type = var.url.auth
  invoke_mode        = var.url.stream ? "RESPONSE_STREAM" : "BUFFERED"

  dynamic "cors" {
    for_each = var.url.cors[*]

    content {
      allow_origins = cors.value.allow_origins
      allow_methods = cors.value.allow_methods
      allow_headers = cors.value.allow_headers
      max_age       = cors.value.max_age
    }
  }
}

# A caller needs both: to use the URL, and to invoke the function by way of it.
resource "aws_lambda_permission" "url" {
  # checkov:skip=CKV_AWS_301:open to all only where the user says auth = NONE
  for_each = toset(local.callers)

  function_name          = aws_lambda_function.this[0].function_name
  qualifier              = aws_lambda_alias.live[0].name
  action                 = "lambda:InvokeFunctionUrl"
  principal              = each.value
  function_url_auth_type = var.url.auth
}

resource "aws_lambda_permission" "invoke" {
  # checkov:skip=CKV_AWS_301:open to all only where the user says auth = NONE, and then only by way of the URL
  for_each = toset(local.callers)

  function_name            = aws_lambda_function.this[0].function_name
  qualifier                = aws_lambda_alias.live[0].name
  action                   = "lambda:InvokeFunction"
  principal                = each.value
  invoked_via_function_url = true
}
