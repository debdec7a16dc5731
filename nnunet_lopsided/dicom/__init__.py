"""DICOM: series of slices as images, and label maps as DICOM SEG, in and out. Needs pydicom and highdicom."""
