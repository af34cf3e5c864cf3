"""A second real mail server: Debian's Exim, unpacked into a folder, since Debian's mail servers exclude one another."""
