"""Mail out: one module or package a way out; they never import each other."""
