"""The stages of a recipe, part by part; `zephyr_ray.zephyr` has their order."""
