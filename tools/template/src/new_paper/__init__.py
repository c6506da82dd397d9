"""Heavy-ball descent: gradient descent with momentum."""

from new_paper.descent import Steps, descend, gradient_descent, heavy_ball
from new_paper.errors import NewPaperError

__all__ = ["NewPaperError", "Steps", "descend", "gradient_descent", "heavy_ball"]
