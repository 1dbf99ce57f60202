"""What can stay at low resolution behind an upsampling layer, so that one shuffle ends it all."""
