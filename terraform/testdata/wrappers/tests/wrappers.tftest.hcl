run "each_wrapper" {
  command = plan

  assert {
    condition     = output.endpoints == { small = "small", large = "large" }
    error_message = "endpoints ${jsonencode(output.endpoints)}"
  }
}

run "of_nothing" {
  command = plan

  module {
    source = "../../modules/execution-role/wrappers"
  }

  assert {
    condition     = length(output.wrapper) == 0
    error_message = "there are roles that nobody asked for"
  }
}

run "a_misspelt_input" {
  command = plan

  module {
    source = "../../modules/execution-role/wrappers"
  }

  variables {
    defaults = { tag = {} }
    items    = { one = { nam = "chat" } }
  }

  expect_failures = [var.defaults, var.items]
}
