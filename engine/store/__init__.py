"""The nodes: one table file per noun, and the content-addressed files beside them."""
