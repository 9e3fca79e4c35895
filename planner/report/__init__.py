"""Pictures of what other rooms have computed; nothing is computed here.

Needs the extra ``plots``. Importing this package does not import matplotlib.
"""

from planner.report.pictures import MOST_BANDS, check_picture, draw

__all__ = ["MOST_BANDS", "check_picture", "draw"]
