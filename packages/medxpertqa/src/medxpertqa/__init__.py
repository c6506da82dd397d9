"""Heavy-ball descent: gradient descent with momentum."""

from medxpertqa.descent import Steps, descend, gradient_descent, heavy_ball

__all__ = ["Steps", "descend", "gradient_descent", "heavy_ball"]
