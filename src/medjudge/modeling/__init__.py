"""The only home of TRL and PEFT."""
