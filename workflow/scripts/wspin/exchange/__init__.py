"""Files of SPIN's and TIS-DPO's codes, into a study and out of one."""
