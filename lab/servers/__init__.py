"""The programs behind the lab's images: small, real, and quick to start.

In:        the arguments and environment that the image of the same job would get.
Out:       servers on the pod's addresses.
Elsewhere: lab/images.py maps image names to these modules. The HTTP servers use the standard library only and can be
           started without `site`, because a lab starts many of them at once.
"""
