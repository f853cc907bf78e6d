"""The Hugging Face world: safetensors files, configurations, and which of our arrays is which of their tensors."""
