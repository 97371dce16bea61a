"""Files of annotation tools: outlines and run lengths in JSON and XML."""
