variable "defaults" {
  description = "Inputs of the module that hold for each of the items, unless it has its own."
  type        = any
  default     = {}
  nullable    = false

  validation {
    condition     = length(setsubtract(keys(var.defaults), local.inputs)) == 0
    error_message = "defaults: the module has no input ${join(", ", setsubtract(keys(var.defaults), local.inputs))}"
  }
}

variable "items" {
  description = "Inputs of the module, by a key for each instance of it; an empty map creates nothing."
  type        = any
  default     = {}
  nullable    = false

  validation {
    condition     = length(setsubtract(flatten([for item in values(var.items) : keys(item)]), local.inputs)) == 0
    error_message = "items: the module has no input ${join(", ", setsubtract(flatten([for item in values(var.items) : keys(item)]), local.inputs))}"
  }
}
