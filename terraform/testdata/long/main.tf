# What is too long for an environment. It is a module because OpenTofu's tests
# may not call functions.

terraform {
  required_version = ">= 1.9"
}

output "value" {
  value = format("%01025d", 0)
}

output "values" {
  value = { for i in range(91) : "V${i}" => "x" }
}

output "many_kilobytes" {
  value = { for i in range(33) : "V${i}" => format("%01000d", 0) }
}

output "four_kilobytes" {
  value = { A1 = format("%02000d", 0), A2 = format("%02000d", 0) }
}
