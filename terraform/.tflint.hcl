# What tflint checks beside its recommended rules, as it is run by test.sh.
rule "terraform_documented_outputs" { enabled = true }
rule "terraform_documented_variables" { enabled = true }
rule "terraform_naming_convention" { enabled = true }
rule "terraform_unused_required_providers" { enabled = true }
rule "terraform_standard_module_structure" { enabled = true }
