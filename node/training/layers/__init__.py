"""What a layer's inputs and output gradients say of each row's gradient, for any torch module."""
