"""Files of SPIN's and TIS-DPO's code, into a study and out of one."""
