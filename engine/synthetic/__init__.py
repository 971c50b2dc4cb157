"""Generated pictures with exact masks: for the demo, the tests and the first bundled model."""

from engine.synthetic.canvas import SceneMask
from engine.synthetic.scene import THEMES, Scene, draw_dataset, draw_scene, scene_seed

__all__ = ["THEMES", "Scene", "SceneMask", "draw_dataset", "draw_scene", "scene_seed"]
