"""Where frames come from: files, folders, RTSP, MJPEG over HTTP, V4L2."""

from edge_sdk.cameras.base import Camera, CameraCounters, open_camera

__all__ = ["Camera", "CameraCounters", "open_camera"]
